/* A played nvidia-smi: -L, --query-gpu, and a banner, through whatever libnvidia-ml.so.1 is installed. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOT_SUPPORTED = 3, NO_DEVICES = 6, DRIVER_NOT_LOADED = 9, LIBRARY_NOT_FOUND = 12, MISMATCH = 18 };
#define TEXT 96
#define MIB (1024ULL * 1024)

typedef void *Device;
typedef unsigned long long u64;

struct memory_v2 {
  unsigned version;
  u64 total, reserved, free, used;
};
struct utilization {
  unsigned gpu, memory;
};
struct pci_info {
  char legacy[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
};

static void *library;

/* Call an NVML function by name; the arguments follow it. */
#define NVML(name, ...) (((int (*)())dlsym(library, name))(__VA_ARGS__))

static const char *explain(int code) {
  return ((const char *(*)(int))dlsym(library, "nvmlErrorString"))(code);
}

static int give_number(Device card, const char *function, double scale, const char *format, char *text) {
  unsigned number;
  int code = NVML(function, card, &number);
  if (!code) snprintf(text, TEXT, format, number / scale);
  return code;
}

static int give_clock(Device card, const char *function, int kind, char *text) {
  unsigned mhz;
  int code = NVML(function, card, kind, &mhz);
  if (!code) snprintf(text, TEXT, "%u", mhz);
  return code;
}

static int give_memory(Device card, const char *which, char *text) {
  struct memory_v2 memory = {.version = 0x02000028};
  int code = NVML("nvmlDeviceGetMemoryInfo_v2", card, &memory);
  if (code) return code;
  u64 bytes = !strcmp(which, "total")      ? memory.total
              : !strcmp(which, "used")     ? memory.used
              : !strcmp(which, "reserved") ? memory.reserved
                                           : memory.free;
  snprintf(text, TEXT, "%llu", bytes / MIB);
  return code;
}

static int give_utilization(Device card, bool memory, char *text) {
  struct utilization rates;
  int code = NVML("nvmlDeviceGetUtilizationRates", card, &rates);
  if (!code) snprintf(text, TEXT, "%u", memory ? rates.memory : rates.gpu);
  return code;
}

static int give_power_bound(Device card, bool maximum, char *text) {
  unsigned bounds[2];
  int code = NVML("nvmlDeviceGetPowerManagementLimitConstraints", card, &bounds[0], &bounds[1]);
  if (!code) snprintf(text, TEXT, "%.2f", bounds[maximum] / 1000.0);
  return code;
}

static int give_capability(Device card, char *text) {
  int major, minor, code = NVML("nvmlDeviceGetCudaComputeCapability", card, &major, &minor);
  if (!code) snprintf(text, TEXT, "%d.%d", major, minor);
  return code;
}

static int give_bus(Device card, char *text) {
  struct pci_info info;
  int code = NVML("nvmlDeviceGetPciInfo_v3", card, &info);
  if (!code) snprintf(text, TEXT, "%s", info.bus_id);
  return code;
}

static int give_persistence(Device card, char *text) {
  int mode, code = NVML("nvmlDeviceGetPersistenceMode", card, &mode);
  if (!code) snprintf(text, TEXT, "%s", mode ? "Enabled" : "Disabled");
  return code;
}

struct power {
  const char *field, *function;
};
static const struct power powers[] = {
    {"power.draw", "nvmlDeviceGetPowerUsage"},
    {"power.draw.instant", "nvmlDeviceGetPowerUsage"},
    {"power.limit", "nvmlDeviceGetPowerManagementLimit"},
    {"enforced.power.limit", "nvmlDeviceGetEnforcedPowerLimit"},
    {"power.default_limit", "nvmlDeviceGetPowerManagementDefaultLimit"},
};
static const struct power plain[] = {
    {"index", "nvmlDeviceGetIndex"},
    {"fan.speed", "nvmlDeviceGetFanSpeed"},
    {"pcie.link.gen.current", "nvmlDeviceGetCurrPcieLinkGeneration"},
    {"pcie.link.gen.max", "nvmlDeviceGetMaxPcieLinkGeneration"},
    {"pcie.link.width.current", "nvmlDeviceGetCurrPcieLinkWidth"},
    {"pcie.link.width.max", "nvmlDeviceGetMaxPcieLinkWidth"},
};

static bool is(const char *field, const char *name) { return !strcmp(field, name); }

/* Write one field of a card: NVML's code, or -1 for a field that is not known. */
static int give_field(Device card, const char *field, char *text) {
  for (size_t i = 0; i < sizeof powers / sizeof *powers; i++)
    if (is(field, powers[i].field)) return give_number(card, powers[i].function, 1000, "%.2f", text);
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
    if (is(field, plain[i].field)) return give_number(card, plain[i].function, 1, "%.0f", text);
  if (!strncmp(field, "memory.", 7)) return give_memory(card, field + 7, text);
  if (is(field, "uuid") || is(field, "gpu_uuid")) return NVML("nvmlDeviceGetUUID", card, text, TEXT);
  if (is(field, "name") || is(field, "gpu_name")) return NVML("nvmlDeviceGetName", card, text, TEXT);
  if (is(field, "pci.bus_id") || is(field, "gpu_bus_id")) return give_bus(card, text);
  if (is(field, "driver_version") || is(field, "kmd_version")) return NVML("nvmlSystemGetDriverVersion", text, TEXT);
  if (is(field, "compute_cap")) return give_capability(card, text);
  if (is(field, "power.min_limit")) return give_power_bound(card, false, text);
  if (is(field, "power.max_limit")) return give_power_bound(card, true, text);
  if (is(field, "persistence_mode")) return give_persistence(card, text);
  if (is(field, "utilization.gpu")) return give_utilization(card, false, text);
  if (is(field, "utilization.memory")) return give_utilization(card, true, text);
  if (is(field, "temperature.gpu")) return give_clock(card, "nvmlDeviceGetTemperature", 0, text);
  if (is(field, "clocks.gr")) return give_clock(card, "nvmlDeviceGetClockInfo", 0, text);
  if (is(field, "clocks.mem")) return give_clock(card, "nvmlDeviceGetClockInfo", 2, text);
  if (is(field, "clocks.max.gr")) return give_clock(card, "nvmlDeviceGetMaxClockInfo", 0, text);
  if (is(field, "clocks.max.mem")) return give_clock(card, "nvmlDeviceGetMaxClockInfo", 2, text);
  if (is(field, "serial") || is(field, "temperature.memory") || is(field, "ecc.mode.current")) return NOT_SUPPORTED;
  return -1;
}

static const char *unit(const char *field) {
  if (!strncmp(field, "memory.", 7)) return " MiB";
  if (strstr(field, "power.")) return " W";
  if (!strncmp(field, "clocks.", 7)) return " MHz";
  return !strncmp(field, "utilization.", 12) || is(field, "fan.speed") ? " %" : "";
}

static int cannot_start(int code) {
  if (code == DRIVER_NOT_LOADED) {
    puts("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
         "Make sure that the latest NVIDIA driver is installed and running.\n");
  } else {
    char version[TEXT] = "";
    printf("Failed to initialize NVML: %s\n", explain(code));
    if (code == MISMATCH && !NVML("nvmlSystemGetNVMLVersion", version, TEXT)) printf("NVML library version: %s\n", version);
  }
  return code > 255 ? 255 : code;
}

static int get_card(unsigned index, Device *card) {
  int code = NVML("nvmlDeviceGetHandleByIndex_v2", index, card);
  if (code)
    printf("Unable to determine the device handle for GPU%u: %s.  Reboot the system to recover this GPU\n", index,
           explain(code));
  return code;
}

static int list(unsigned count) {
  char name[TEXT], uuid[TEXT];
  for (unsigned index = 0; index < count; index++) {
    Device card;
    int code = get_card(index, &card);
    if (code) return code;
    if (NVML("nvmlDeviceGetName", card, name, TEXT)) strcpy(name, "Unknown");
    if (NVML("nvmlDeviceGetUUID", card, uuid, TEXT)) strcpy(uuid, "Unknown");
    printf("GPU %u: %s (UUID: %s)\n", index, name, uuid);
  }
  return 0;
}

static int query(unsigned count, const char *fields, const char *wanted, const char *format) {
  bool units = !strstr(format, "nounits");
  char copy[4096], text[TEXT], *rest, *field;
  if (!strstr(format, "noheader")) printf("%s\n", fields);
  for (unsigned index = 0; index < count; index++) {
    Device card;
    int code = get_card(index, &card);
    if (code) return code;
    char uuid[TEXT] = "", number[16];
    NVML("nvmlDeviceGetUUID", card, uuid, TEXT);
    snprintf(number, sizeof number, "%u", index);
    if (wanted && strcmp(wanted, number) && strcmp(wanted, uuid)) continue;
    snprintf(copy, sizeof copy, "%s", fields);
    for (field = strtok_r(copy, ",", &rest); field; field = strtok_r(NULL, ",", &rest)) {
      if (field != copy) fputs(", ", stdout);
      code = give_field(card, field, text);
      if (code == -1) {
        printf("Field \"%s\" is not a valid field to query.\n\n", field);
        return 2;
      }
      if (code == NOT_SUPPORTED) fputs("[N/A]", stdout);
      else if (code) printf("[%s]", explain(code));
      else printf("%s%s", text, units ? unit(field) : "");
    }
    puts("");
  }
  return 0;
}

static int banner(unsigned count) {
  char version[TEXT] = "";
  int cuda = 0;
  NVML("nvmlSystemGetDriverVersion", version, TEXT);
  NVML("nvmlSystemGetCudaDriverVersion_v2", &cuda);
  printf("NVIDIA-SMI %s    Driver Version: %s    CUDA Version: %d.%d\n", version, version, cuda / 1000, cuda % 1000 / 10);
  return list(count);
}

int main(int argc, char **argv) {
  const char *fields = NULL, *format = "csv", *wanted = NULL;
  bool listing = false;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "-L") || !strcmp(argv[i], "--list-gpus")) listing = true;
    else if (!strncmp(argv[i], "--query-gpu=", 12)) fields = argv[i] + 12;
    else if (!strncmp(argv[i], "--format=", 9)) format = argv[i] + 9;
    else if (!strcmp(argv[i], "-i") && i + 1 < argc) wanted = argv[++i];
    else if (!strncmp(argv[i], "--id=", 5)) wanted = argv[i] + 5;
    else {
      printf("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\n");
      return 1;
    }
  }
  library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  if (!library) {
    puts("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. "
         "Please make sure that the NVIDIA Display Driver is properly installed and present in your system.");
    return LIBRARY_NOT_FOUND;
  }
  int code = NVML("nvmlInit_v2");
  if (code) return cannot_start(code);
  unsigned count = 0;
  NVML("nvmlDeviceGetCount_v2", &count);
  if (!count) {
    puts("No devices were found");
    return NO_DEVICES;
  }
  return listing ? list(count) : fields ? query(count, fields, wanted, format) : banner(count);
}
