"""A source that stands in for llama.cpp: the same programs by name, linked to OpenSSL, built in a second.

With CUDA it has a module with one kernel, which calls cuBLAS and the driver as ggml-cuda does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

VERSION: Final = "1.2.3"
COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"
EPOCH: Final = 1_700_000_000
LISTS: Final = """\
cmake_minimum_required(VERSION 3.18)
project(toy C CXX)
set(LLAMA_VERSION_MAJOR 1)
set(LLAMA_VERSION_MINOR 2)
set(LLAMA_VERSION_PATCH 3)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
find_package(OpenSSL REQUIRED)
add_library(toy SHARED toy.cpp)
target_link_libraries(toy PRIVATE OpenSSL::Crypto)
if(GGML_CUDA)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  add_library(ggml-cuda MODULE kernel.cu)
  target_link_libraries(ggml-cuda PRIVATE CUDA::cudart CUDA::cublas CUDA::cuda_driver)
  add_dependencies(toy ggml-cuda)
endif()
foreach(tool llama-server llama-bench llama-fit-params llama-perplexity llama-quantize llama-gguf-split
        llama-tokenize ggml-rpc-server test-backend-ops)
  add_executable(${tool} main.cpp)
  target_compile_definitions(${tool} PRIVATE COMMIT="${LLAMA_BUILD_COMMIT}")
  target_link_libraries(${tool} PRIVATE toy)
endforeach()
"""
MAIN: Final = """\
#include <cstdio>
const char *crypto();
int main() { std::printf("version: 1.2.3 (commit %s) %s\\n", COMMIT, crypto()); }
"""
TOY: Final = """\
#include <openssl/crypto.h>
const char *crypto() { return OpenSSL_version(OPENSSL_VERSION); }
"""
KERNEL: Final = """\
#include <cublas_v2.h>
#include <cuda.h>
__global__ void twice(float *values) { values[threadIdx.x] *= 2; }
extern "C" int start(float *values) {
  cublasHandle_t handle;
  twice<<<1, 32>>>(values);
  return cuInit(0) + cublasCreate(&handle);
}
"""


def write_source(directory: Path, main: str = MAIN) -> Path:
    """Write the tree into a directory and return where it is."""
    tree = directory / "toy"
    tree.mkdir()
    for name, text in (("CMakeLists.txt", LISTS), ("main.cpp", main), ("toy.cpp", TOY), ("kernel.cu", KERNEL)):
        (tree / name).write_text(text, encoding="utf-8")
    return tree
