/* What a card measures, and what can be set on it. */
#include "nvml-library.h"

#define IDLE_POWER_MW 21000U
#define VALUE_UNSIGNED 1
#define VALUE_UNSIGNED_LONG_LONG 3
#define VALUE_SIGNED 5

struct temperature {
  unsigned version;
  int sensor, celsius;
};
struct margin {
  unsigned version;
  int celsius;
};
union value {
  double real;
  unsigned number;
  int integer;
  u64 big;
};
struct field {
  unsigned id, scope;
  long long timestamp, latency;
  int type, code;
  union value value;
};

/* ---- temperature, fans, power ---- */

EXPORT int nvmlDeviceGetTemperature(Device card, int sensor, unsigned *celsius) {
  ENTER_CARD(card);
  if (sensor) return INVALID_ARGUMENT;
  *celsius = busy(card) ? 56 : 34;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetTemperatureV(Device card, struct temperature *temperature) {
  ENTER_CARD(card);
  if (temperature->sensor) return INVALID_ARGUMENT;
  temperature->celsius = busy(card) ? 56 : 34;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetTemperatureThreshold(Device card, int kind, unsigned *celsius) {
  static const unsigned known[] = {96, 93, 0, 90}; /* shutdown, slowdown, none of the memory's, highest */
  ENTER_CARD(card);
  if (kind < 0 || kind > 3 || !known[kind]) return NOT_SUPPORTED;
  *celsius = known[kind];
  return SUCCESS;
}

EXPORT int nvmlDeviceGetMarginTemperature(Device card, struct margin *margin) {
  ENTER_CARD(card);
  margin->celsius = 90 - (busy(card) ? 56 : 34);
  return SUCCESS;
}

EXPORT int nvmlDeviceGetNumFans(Device card, unsigned *count) {
  ENTER_CARD(card);
  *count = 2;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetFanSpeed(Device card, unsigned *percent) {
  ENTER_CARD(card);
  *percent = busy(card) ? 38 : 0;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetFanSpeed_v2(Device card, unsigned fan, unsigned *percent) {
  ENTER_CARD(card);
  if (fan > 1) return INVALID_ARGUMENT;
  *percent = busy(card) ? 38 : 0;
  return SUCCESS;
}

static unsigned power_limit_mw(const struct card *card) {
  unsigned limit;
  return state_read(card, "power_limit_mw", &limit, NULL) ? limit : card->power_default_w * 1000;
}

static unsigned power_mw(const struct card *card) {
  return busy(card) ? power_limit_mw(card) / 10 * 6 : IDLE_POWER_MW;
}

EXPORT int nvmlDeviceGetPowerUsage(Device card, unsigned *milliwatts) {
  ENTER_CARD(card);
  *milliwatts = power_mw(card);
  return SUCCESS;
}

EXPORT int nvmlDeviceGetPowerManagementLimit(Device card, unsigned *milliwatts) {
  ENTER_CARD(card);
  *milliwatts = power_limit_mw(card);
  return SUCCESS;
}

EXPORT int nvmlDeviceGetEnforcedPowerLimit(Device card, unsigned *milliwatts) {
  ENTER_CARD(card);
  *milliwatts = power_limit_mw(card);
  return SUCCESS;
}

EXPORT int nvmlDeviceGetPowerManagementDefaultLimit(Device card, unsigned *milliwatts) {
  ENTER_CARD(card);
  *milliwatts = card->power_default_w * 1000;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetPowerManagementLimitConstraints(Device card, unsigned *minimum, unsigned *maximum) {
  ENTER_CARD(card);
  *minimum = card->power_min_w * 1000;
  *maximum = card->power_max_w * 1000;
  return SUCCESS;
}

EXPORT int nvmlDeviceSetPowerManagementLimit(Device card, unsigned milliwatts) {
  ENTER_CARD(card);
  if (milliwatts < card->power_min_w * 1000 || milliwatts > card->power_max_w * 1000) return INVALID_ARGUMENT;
  return state_write(card, "power_limit_mw", milliwatts, 0);
}

/* What only grows: so much for every second that the machine is up, whatever the card does. */
static u64 grown(u64 by_second) {
  struct timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return (u64)now.tv_sec * by_second;
}

EXPORT int nvmlDeviceGetTotalEnergyConsumption(Device card, u64 *millijoules) {
  ENTER_CARD(card);
  *millijoules = grown(IDLE_POWER_MW);
  return SUCCESS;
}

EXPORT int nvmlDeviceGetPersistenceMode(Device card, int *mode) {
  unsigned set;
  ENTER_CARD(card);
  *mode = state_read(card, "persistence", &set, NULL) && set;
  return SUCCESS;
}

EXPORT int nvmlDeviceSetPersistenceMode(Device card, int mode) {
  ENTER_CARD(card);
  if (mode != 0 && mode != 1) return INVALID_ARGUMENT;
  return state_write(card, "persistence", (unsigned)mode, 0);
}

/* ---- clocks ---- */

enum { CLOCK_GRAPHICS, CLOCK_SM, CLOCK_MEMORY, CLOCK_VIDEO, CLOCKS };

static unsigned max_clock(const struct card *card, int kind) {
  return kind == CLOCK_MEMORY ? card->memory_clock_max_mhz : card->clock_max_mhz;
}

EXPORT int nvmlDeviceGetMaxClockInfo(Device card, int kind, unsigned *mhz) {
  ENTER_CARD(card);
  if (kind < 0 || kind >= CLOCKS) return INVALID_ARGUMENT;
  *mhz = max_clock(card, kind);
  return SUCCESS;
}

EXPORT int nvmlDeviceGetClockInfo(Device card, int kind, unsigned *mhz) {
  unsigned low = 210, high = max_clock(card, kind);
  ENTER_CARD(card);
  if (kind < 0 || kind >= CLOCKS) return INVALID_ARGUMENT;
  if (kind != CLOCK_MEMORY) state_read(card, "locked_clocks_mhz", &low, &high);
  *mhz = busy(card) ? high : kind == CLOCK_MEMORY ? 405 : low;
  return SUCCESS;
}

EXPORT int nvmlDeviceSetGpuLockedClocks(Device card, unsigned low, unsigned high) {
  ENTER_CARD(card);
  if (low > high || high > card->clock_max_mhz) return INVALID_ARGUMENT;
  return state_write(card, "locked_clocks_mhz", low, high);
}

EXPORT int nvmlDeviceResetGpuLockedClocks(Device card) {
  ENTER_CARD(card);
  return state_remove(card, "locked_clocks_mhz");
}

EXPORT int nvmlDeviceGetPerformanceState(Device card, int *state) {
  ENTER_CARD(card);
  *state = busy(card) ? 2 : 8;
  return SUCCESS;
}

/* The number-th fault NAME=TEXT[@UUID] that is about this card, or about all; its text without the card. */
static bool card_fault(const char *name, unsigned number, const struct card *card, char *text, size_t size) {
  for (unsigned line = 0; silicon_fault(name, line, text, size); line++) {
    char *uuid = strchr(text, '@');
    if (uuid && strcmp(uuid + 1, card->uuid)) continue;
    if (number--) continue;
    if (uuid) *uuid = '\0';
    return true;
  }
  return false;
}

static int give_reasons(const struct card *card, u64 *reasons) {
  char text[TEXT * 2];
  *reasons = busy(card) ? 0 : 1; /* idle */
  if (card_fault("throttle", 0, card, text, sizeof text)) *reasons = strtoull(text, NULL, 0);
  return SUCCESS;
}

EXPORT int nvmlDeviceGetCurrentClocksEventReasons(Device card, u64 *reasons) {
  ENTER_CARD(card);
  return give_reasons(card, reasons);
}

EXPORT int nvmlDeviceGetCurrentClocksThrottleReasons(Device card, u64 *reasons) {
  ENTER_CARD(card);
  return give_reasons(card, reasons);
}

/* ---- PCIe ---- */

EXPORT int nvmlDeviceGetCurrPcieLinkGeneration(Device card, unsigned *generation) {
  ENTER_CARD(card);
  *generation = card->link_current_generation;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetCurrPcieLinkWidth(Device card, unsigned *width) {
  ENTER_CARD(card);
  *width = card->link_current_width;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetMaxPcieLinkGeneration(Device card, unsigned *generation) {
  ENTER_CARD(card);
  *generation = card->link_generation;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetMaxPcieLinkWidth(Device card, unsigned *width) {
  ENTER_CARD(card);
  *width = card->link_width;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetPcieThroughput(Device card, int counter, unsigned *kb_per_second) {
  ENTER_CARD(card);
  if (counter < 0 || counter > 1) return INVALID_ARGUMENT;
  *kb_per_second = busy(card) ? 2400 : 0;
  return SUCCESS;
}

EXPORT int nvmlDeviceGetPcieReplayCounter(Device card, unsigned *count) {
  ENTER_CARD(card);
  *count = 0;
  return SUCCESS;
}

/* ---- what a GeForce does not answer ---- */

EXPORT int nvmlDeviceGetSerial(Device card, char *serial, unsigned length) {
  ENTER_CARD(card);
  (void)serial, (void)length;
  return NOT_SUPPORTED;
}

EXPORT int nvmlDeviceGetEccMode(Device card, int *current, int *pending) {
  ENTER_CARD(card);
  (void)current, (void)pending;
  return NOT_SUPPORTED;
}

EXPORT int nvmlDeviceGetTotalEccErrors(Device card, int kind, int counter, u64 *count) {
  ENTER_CARD(card);
  (void)kind, (void)counter, (void)count;
  return NOT_SUPPORTED;
}

/* ---- fields ---- */

static void fill_number(struct field *field, unsigned number) {
  field->type = VALUE_UNSIGNED;
  field->value.number = number;
}

static void fill_big(struct field *field, u64 number) {
  field->type = VALUE_UNSIGNED_LONG_LONG;
  field->value.big = number;
}

static void fill_integer(struct field *field, int number) {
  field->type = VALUE_SIGNED;
  field->value.integer = number;
}

/* A field that is asked for as a fault, field=ID:NUMBER. */
static bool fill_as_told(const struct card *card, struct field *field) {
  char text[TEXT * 2], *number;
  for (unsigned i = 0; card_fault("field", i, card, text, sizeof text); i++) {
    if (strtoul(text, &number, 10) != field->id || *number != ':') continue;
    fill_big(field, strtoull(number + 1, NULL, 10));
    return true;
  }
  return false;
}

static void fill_field(const struct card *card, struct field *field) {
  field->code = SUCCESS;
  if (fill_as_told(card, field)) return;
  switch (field->id) {
    case 83: fill_big(field, grown(IDLE_POWER_MW)); break;
    case 94: fill_number(field, 0); break; /* PCIe replays */
    case 185:
    case 186: fill_number(field, power_mw(card)); break;
    case 193: fill_integer(field, -5); break; /* shutdown, slowdown, highest: degrees that are left then */
    case 194: fill_integer(field, -2); break;
    case 196: fill_integer(field, 0); break;
    case 197: /* bytes from the card, and to it */
    case 198: fill_big(field, grown(1000)); break;
    case 74:
    case 76:
    case 269:
    case 270:
    case 271: fill_big(field, 0); break; /* time lost to clock limits */
    case 230: fill_number(field, 0); break; /* recovery action: none */
    default: field->code = NOT_SUPPORTED;
  }
}

EXPORT int nvmlDeviceGetFieldValues(Device card, int count, struct field *fields) {
  ENTER_CARD(card);
  for (int i = 0; i < count; i++) fill_field(card, &fields[i]);
  return SUCCESS;
}
