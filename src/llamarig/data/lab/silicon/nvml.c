/* The library, its faults, and how cards are found. */
#include "nvml-library.h"

struct pci_info {
  char legacy[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
};

struct card cards[CARDS_MAX];
unsigned card_count;
static Device visible[CARDS_MAX];
static unsigned visible_count;
static unsigned initialized;

/* ---- faults ---- */

int planned_fault(const char *function) {
  char value[TEXT * 2];
  if (silicon_fault("hang", 0, value, sizeof value)) {
    double seconds = atof(value);
    struct timespec wait = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&wait, NULL);
  }
  if (silicon_fault_is("na", function)) return NOT_SUPPORTED;
  for (unsigned number = 0; silicon_fault("fail", number, value, sizeof value); number++) {
    char *code = strchr(value, ':');
    if (!code) continue;
    *code = '\0';
    if (!strcmp(value, function)) return atoi(code + 1);
  }
  return SUCCESS;
}

int enter(const char *function) {
  int code = planned_fault(function);
  return code ? code : initialized ? SUCCESS : UNINITIALIZED;
}

int enter_card(const char *function, const struct card *card) {
  int code = enter(function);
  if (code) return code;
  if (card < cards || card >= cards + card_count) return INVALID_ARGUMENT;
  return silicon_fault_is("lost", card->uuid) ? GPU_IS_LOST : SUCCESS;
}

/* ---- the library ---- */

static int initialize(const char *function) {
  char version[TEXT];
  int code = planned_fault(function);
  if (code) return code;
  if (!silicon_loaded(version, sizeof version)) return DRIVER_NOT_LOADED;
  if (strcmp(version, DRIVER_VERSION)) return LIB_RM_VERSION_MISMATCH;
  int refused = silicon_node("nvidiactl");
  if (refused) return refused == ENOENT ? DRIVER_NOT_LOADED : UNKNOWN;
  if (initialized++) return SUCCESS;
  card_count = silicon_cards(cards);
  visible_count = 0;
  for (unsigned i = 0; i < card_count; i++)
    if (silicon_sees(cards[i].minor)) visible[visible_count++] = &cards[i];
  return SUCCESS;
}

EXPORT int nvmlInit(void) { return initialize(__func__); }
EXPORT int nvmlInit_v2(void) { return initialize(__func__); }
EXPORT int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  return initialize(__func__);
}

EXPORT int nvmlShutdown(void) {
  ENTER();
  initialized--;
  return SUCCESS;
}

EXPORT const char *nvmlErrorString(int code) {
  switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case TIMEOUT: return "Timeout";
    case GPU_IS_LOST: return "GPU is lost";
    case LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
    default: return "Unknown Error";
  }
}

int give_text(char *buffer, unsigned length, const char *text) {
  if (strlen(text) >= length) return INSUFFICIENT_SIZE;
  snprintf(buffer, length, "%s", text);
  return SUCCESS;
}

EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned length) {
  ENTER();
  return give_text(version, length, DRIVER_VERSION);
}

EXPORT int nvmlSystemGetNVMLVersion(char *version, unsigned length) {
  char text[TEXT];
  int code = planned_fault(__func__);
  if (code) return code;
  snprintf(text, sizeof text, "%d." DRIVER_VERSION, CUDA_VERSION / 1000);
  return give_text(version, length, text);
}

EXPORT int nvmlSystemGetCudaDriverVersion(int *version) {
  ENTER();
  *version = CUDA_VERSION;
  return SUCCESS;
}

EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *version) {
  ENTER();
  *version = CUDA_VERSION;
  return SUCCESS;
}

EXPORT int nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
  char path[TEXT], comm[TEXT];
  ENTER();
  snprintf(path, sizeof path, "/proc/%u/comm", pid);
  return read_word(path, comm, sizeof comm) ? give_text(name, length, comm) : NOT_FOUND;
}

/* ---- finding cards ---- */

static int give_card(Device *device, Device card) {
  if (silicon_fault_is("lost", card->uuid)) return GPU_IS_LOST;
  *device = card;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *count) {
  ENTER();
  *count = visible_count;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
  ENTER();
  return index < visible_count ? give_card(device, visible[index]) : INVALID_ARGUMENT;
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, Device *device) {
  ENTER();
  for (unsigned i = 0; i < visible_count; i++)
    if (!strcmp(visible[i]->uuid, uuid)) return give_card(device, visible[i]);
  return NOT_FOUND;
}

static void pci_numbers(const char *address, unsigned numbers[4]) {
  memset(numbers, 0, 4 * sizeof *numbers);
  sscanf(address, "%x:%x:%x.%x", &numbers[0], &numbers[1], &numbers[2], &numbers[3]);
}

EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *address, Device *device) {
  unsigned wanted[4], found[4];
  ENTER();
  pci_numbers(address, wanted);
  for (unsigned i = 0; i < visible_count; i++) {
    pci_numbers(visible[i]->pci, found);
    if (!memcmp(wanted, found, sizeof found)) return give_card(device, visible[i]);
  }
  return NOT_FOUND;
}

EXPORT int nvmlDeviceGetIndex(Device card, unsigned *index) {
  ENTER_CARD(card);
  for (unsigned i = 0; i < visible_count; i++)
    if (visible[i] == card) *index = i;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetMinorNumber(Device card, unsigned *minor) {
  ENTER_CARD(card);
  *minor = card->minor;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetName(Device card, char *name, unsigned length) {
  ENTER_CARD(card);
  return give_text(name, length, card->name);
}

EXPORT int nvmlDeviceGetUUID(Device card, char *uuid, unsigned length) {
  ENTER_CARD(card);
  return give_text(uuid, length, card->uuid);
}

EXPORT int nvmlDeviceGetPciInfo_v3(Device card, struct pci_info *info) {
  unsigned numbers[4];
  ENTER_CARD(card);
  pci_numbers(card->pci, numbers);
  *info = (struct pci_info){.domain = numbers[0], .bus = numbers[1], .device = numbers[2]};
  info->device_id = card->device << 16 | 0x10de;
  unsigned domain = numbers[0] & 0xffff, bus = numbers[1] & 0xff, slot = numbers[2] & 0xff, function = numbers[3] & 0xf;
  snprintf(info->legacy, sizeof info->legacy, "%04X:%02X:%02X.%X", domain, bus, slot, function);
  snprintf(info->bus_id, sizeof info->bus_id, "%08X:%02X:%02X.%X", domain, bus, slot, function);
  return SUCCESS;
}

EXPORT int nvmlDeviceGetCudaComputeCapability(Device card, int *major, int *minor) {
  ENTER_CARD(card);
  *major = (int)card->compute_major;
  *minor = (int)card->compute_minor;
  return SUCCESS;
}
