/* A played libcuda.so.1: enough to tell whether a process could compute. Built with DRIVER_VERSION and CUDA_VERSION. */
#include "silicon.h"

enum {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_INVALID_VALUE = 1,
  CUDA_ERROR_NOT_INITIALIZED = 3,
  CUDA_ERROR_NO_DEVICE = 100,
  CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803,
  CUDA_ERROR_UNKNOWN = 999
};

EXPORT int cuInit(unsigned flags);
EXPORT int cuDeviceGetCount(int *count);
EXPORT int cuDriverGetVersion(int *version);

static int devices = -1;

static int count_devices(void) {
  int count = 0;
  for (unsigned minor = 0; minor < CARDS_MAX; minor++) count += silicon_sees(minor);
  return count;
}

int cuInit(unsigned flags) {
  char value[TEXT];
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  if (silicon_fault("cuinit", 0, value, sizeof value)) return atoi(value);
  if (silicon_node("nvidiactl")) return CUDA_ERROR_UNKNOWN;
  if (silicon_loaded(value, sizeof value) && strcmp(value, DRIVER_VERSION)) return CUDA_ERROR_SYSTEM_DRIVER_MISMATCH;
  int count = count_devices();
  if (!count) return CUDA_ERROR_NO_DEVICE;
  devices = count;
  return CUDA_SUCCESS;
}

int cuDeviceGetCount(int *count) {
  if (devices < 0) return CUDA_ERROR_NOT_INITIALIZED;
  *count = devices;
  return CUDA_SUCCESS;
}

int cuDriverGetVersion(int *version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}
