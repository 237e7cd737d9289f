/* Processes and memory: every llama-server in a container that has the card's node uses it. */
#include "nvml-library.h"

#include <dirent.h>
#include <sys/stat.h>

#define MIB (1024ULL * 1024)
#define RESERVED_MIB 400ULL

struct memory {
  u64 total, free, used;
};
struct memory_v2 {
  unsigned version;
  u64 total, reserved, free, used;
};
struct utilization {
  unsigned gpu, memory;
};
struct process {
  unsigned pid;
  u64 memory;
  unsigned gpu_instance, compute_instance;
};

bool read_word(const char *path, char *word, size_t size) {
  FILE *file = silicon_open(path);
  bool read = file && fgets(word, (int)size, file);
  if (file) fclose(file);
  if (read) word[strcspn(word, "\n")] = '\0';
  return read;
}

static bool same_file(const char *first, const char *second) {
  char path[4096];
  struct stat a, b;
  if (stat(silicon_path(path, sizeof path, first), &a)) return false;
  return !stat(silicon_path(path, sizeof path, second), &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static u64 resident_bytes(unsigned pid) {
  char path[TEXT], line[256];
  u64 kib = 0;
  snprintf(path, sizeof path, "/proc/%u/status", pid);
  FILE *file = silicon_open(path);
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "VmRSS: %llu", &kib) == 1) break;
  if (file) fclose(file);
  return kib * 1024;
}

static bool computes(unsigned pid, const struct card *card) {
  char path[TEXT], comm[TEXT], full[4096];
  snprintf(path, sizeof path, "/proc/%u/comm", pid);
  if (!read_word(path, comm, sizeof comm) || strcmp(comm, "llama-server")) return false;
  snprintf(path, sizeof path, "/proc/%u/ns/mnt", pid);
  if (same_file(path, "/proc/1/ns/mnt")) return false;
  snprintf(path, sizeof path, "/proc/%u/root/dev/nvidia%u", pid, card->minor);
  return !access(silicon_path(full, sizeof full, path), F_OK);
}

static unsigned told_processes_on(const struct card *card, struct process *list, unsigned capacity) {
  unsigned count = 0, pid;
  u64 bytes;
  for (; kernel_holder(count, card->minor, &pid, &bytes); count++)
    if (count < capacity) list[count] = (struct process){pid, bytes, ~0U, ~0U};
  return count;
}

static unsigned processes_on(const struct card *card, struct process *list, unsigned capacity) {
  char path[4096];
  unsigned count = 0;
  if (silicon_fault("cpu_fallback", 0, path, sizeof path)) return 0;
  if (kernel_tells()) return told_processes_on(card, list, capacity);
  DIR *proc = opendir(silicon_path(path, sizeof path, "/proc"));
  for (struct dirent *entry; proc && (entry = readdir(proc));) {
    unsigned pid = (unsigned)strtoul(entry->d_name, NULL, 10);
    if (!pid || !computes(pid, card)) continue;
    if (count < capacity) list[count] = (struct process){pid, resident_bytes(pid), ~0U, ~0U};
    count++;
  }
  if (proc) closedir(proc);
  return count;
}

static u64 used_by_processes(const struct card *card) {
  struct process list[64];
  unsigned count = processes_on(card, list, 64);
  u64 sum = 0;
  for (unsigned i = 0; i < count && i < 64; i++) sum += list[i].memory;
  u64 room = (card->memory_mib - RESERVED_MIB) * MIB;
  return sum < room ? sum : room;
}

bool busy(const struct card *card) { return processes_on(card, NULL, 0) > 0; }

EXPORT int nvmlDeviceGetMemoryInfo(Device card, struct memory *memory) {
  ENTER_CARD(card);
  memory->total = card->memory_mib * MIB;
  memory->used = RESERVED_MIB * MIB + used_by_processes(card);
  memory->free = memory->total - memory->used;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetMemoryInfo_v2(Device card, struct memory_v2 *memory) {
  ENTER_CARD(card);
  if (memory->version != 0x02000028) return 25; /* NVML_ERROR_ARGUMENT_VERSION_MISMATCH */
  memory->total = card->memory_mib * MIB;
  memory->reserved = RESERVED_MIB * MIB;
  memory->used = used_by_processes(card);
  memory->free = memory->total - memory->reserved - memory->used;
  return SUCCESS;
}

static int give_processes(const struct card *card, unsigned *count, struct process *list) {
  unsigned capacity = list ? *count : 0;
  *count = processes_on(card, list, capacity);
  return *count > capacity ? INSUFFICIENT_SIZE : SUCCESS;
}

EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(Device card, unsigned *count, struct process *list) {
  ENTER_CARD(card);
  return give_processes(card, count, list);
}

EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(Device card, unsigned *count, struct process *list) {
  ENTER_CARD(card);
  (void)list;
  *count = 0;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetUtilizationRates(Device card, struct utilization *rates) {
  ENTER_CARD(card);
  *rates = busy(card) ? (struct utilization){34, 21} : (struct utilization){0, 0};
  return SUCCESS;
}

static int give_coder(unsigned *percent, unsigned *period_us) {
  *percent = 0;
  *period_us = 167000;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetEncoderUtilization(Device card, unsigned *percent, unsigned *period_us) {
  ENTER_CARD(card);
  return give_coder(percent, period_us);
}

EXPORT int nvmlDeviceGetDecoderUtilization(Device card, unsigned *percent, unsigned *period_us) {
  ENTER_CARD(card);
  return give_coder(percent, period_us);
}
