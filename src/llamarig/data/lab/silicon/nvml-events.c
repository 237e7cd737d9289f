/* Events: an Xid for every line that was appended after the set was made. */
#include "nvml-library.h"

#define EVENT_XID 0x8ULL

struct event {
  Device device;
  u64 type, data;
  unsigned gpu_instance, compute_instance;
};
struct event_set {
  unsigned seen;
  bool watched[CARDS_MAX];
};

static unsigned count_xids(void) {
  char value[TEXT * 2];
  unsigned count = 0;
  while (silicon_fault("xid", count, value, sizeof value)) count++;
  return count;
}

EXPORT int nvmlEventSetCreate(struct event_set **set) {
  ENTER();
  *set = calloc(1, sizeof **set);
  if (!*set) return UNKNOWN;
  (*set)->seen = count_xids();
  return SUCCESS;
}

EXPORT int nvmlDeviceRegisterEvents(Device card, u64 types, struct event_set *set) {
  ENTER_CARD(card);
  if (types & ~EVENT_XID) return NOT_SUPPORTED;
  set->watched[card - cards] = true;
  return SUCCESS;
}

static bool next_event(struct event_set *set, struct event *event) {
  char value[TEXT * 2];
  while (silicon_fault("xid", set->seen, value, sizeof value)) {
    set->seen++;
    char *uuid = strchr(value, '@');
    if (!uuid) continue;
    for (unsigned i = 0; i < card_count; i++) {
      if (!set->watched[i] || strcmp(cards[i].uuid, uuid + 1)) continue;
      *event = (struct event){&cards[i], EVENT_XID, strtoull(value, NULL, 10), ~0U, ~0U};
      return true;
    }
  }
  return false;
}

EXPORT int nvmlEventSetWait_v2(struct event_set *set, struct event *event, unsigned timeout_ms) {
  struct timespec pause = {0, 20 * 1000 * 1000};
  ENTER();
  for (unsigned waited = 0;; waited += 20) {
    unsigned present = count_xids();
    if (present < set->seen) set->seen = 0; /* the file was written anew */
    if (next_event(set, event)) return SUCCESS;
    if (waited >= timeout_ms) return TIMEOUT;
    nanosleep(&pause, NULL);
  }
}

EXPORT int nvmlEventSetFree(struct event_set *set) {
  ENTER();
  free(set);
  return SUCCESS;
}
