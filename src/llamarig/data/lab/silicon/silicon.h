/* What the played libraries share: where the played hardware is, its cards, its faults.
 *
 * Cards: /var/lib/lab-silicon/cards. Faults: /var/lib/lab-silicon/faults, read anew at every call.
 * The played kernel: /run/lab-silicon/sys, which containers see too; /sys where that is absent.
 * LAB_SILICON_ROOT is put before every path, for tests.
 */
#ifndef SILICON_H
#define SILICON_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define CARDS_MAX 8
#define TEXT 96

struct card {
  char uuid[TEXT], pci[TEXT], name[TEXT];
  unsigned minor, device, memory_mib, compute_major, compute_minor;
  unsigned power_min_w, power_max_w, power_default_w;
  unsigned link_generation, link_width, link_current_generation, link_current_width;
  unsigned clock_max_mhz, memory_clock_max_mhz;
};

static inline const char *silicon_path(char *buffer, size_t size, const char *path) {
  const char *root = getenv("LAB_SILICON_ROOT");
  snprintf(buffer, size, "%s%s", root ? root : "", path);
  return buffer;
}

static inline void silicon_copy(char *target, size_t size, const char *text) {
  size_t length = strnlen(text, size - 1);
  memcpy(target, text, length);
  target[length] = '\0';
}

static inline FILE *silicon_open(const char *path) {
  char full[4096];
  return fopen(silicon_path(full, sizeof full, path), "re");
}

static inline void silicon_card_value(struct card *card, const char *key, const char *value) {
  unsigned number = (unsigned)strtoul(value, NULL, 10);
  if (!strcmp(key, "uuid")) silicon_copy(card->uuid, TEXT, value);
  else if (!strcmp(key, "pci")) silicon_copy(card->pci, TEXT, value);
  else if (!strcmp(key, "device")) card->device = (unsigned)strtoul(value, NULL, 16);
  else if (!strcmp(key, "memory_mib")) card->memory_mib = number;
  else if (!strcmp(key, "power_min_w")) card->power_min_w = number;
  else if (!strcmp(key, "power_max_w")) card->power_max_w = number;
  else if (!strcmp(key, "power_default_w")) card->power_default_w = number;
  else if (!strcmp(key, "link_generation")) card->link_generation = number;
  else if (!strcmp(key, "link_width")) card->link_width = number;
  else if (!strcmp(key, "link_current_generation")) card->link_current_generation = number;
  else if (!strcmp(key, "link_current_width")) card->link_current_width = number;
  else if (!strcmp(key, "clock_max_mhz")) card->clock_max_mhz = number;
  else if (!strcmp(key, "memory_clock_max_mhz")) card->memory_clock_max_mhz = number;
  else if (!strcmp(key, "compute")) {
    char *rest;
    card->compute_major = (unsigned)strtoul(value, &rest, 10);
    card->compute_minor = *rest == '.' ? (unsigned)strtoul(rest + 1, NULL, 10) : 0;
  } else if (!strcmp(key, "name")) {
    silicon_copy(card->name, TEXT, value);
    for (char *c = card->name; *c; c++)
      if (*c == '_') *c = ' ';
  }
}

/* Read the cards of the machine; the line number is the minor number. */
static inline unsigned silicon_cards(struct card *cards) {
  FILE *file = silicon_open("/var/lib/lab-silicon/cards");
  char line[2048], *rest, *word;
  unsigned count = 0;
  if (!file) return 0;
  while (count < CARDS_MAX && fgets(line, sizeof line, file)) {
    struct card card = {.minor = count, .clock_max_mhz = 3000, .memory_clock_max_mhz = 10000};
    for (word = strtok_r(line, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
      char *value = strchr(word, '=');
      if (!value) continue;
      *value = '\0';
      silicon_card_value(&card, word, value + 1);
    }
    if (!card.uuid[0]) continue;
    if (!card.link_current_generation) card.link_current_generation = card.link_generation;
    if (!card.link_current_width) card.link_current_width = card.link_width;
    cards[count++] = card;
  }
  fclose(file);
  return count;
}

/* Find the number-th line "key=value" or "key" of the faults; false where there are fewer. */
static inline bool silicon_fault(const char *key, unsigned number, char *value, size_t size) {
  FILE *file = silicon_open("/var/lib/lab-silicon/faults");
  char line[512];
  bool found = false;
  if (!file) return false;
  while (!found && fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = '\0';
    size_t length = strcspn(line, "=");
    if (length != strlen(key) || strncmp(line, key, length) || number--) continue;
    silicon_copy(value, size, line[length] ? line + length + 1 : "");
    found = true;
  }
  fclose(file);
  return found;
}

/* Tell whether a fault with exactly this value is asked for. */
static inline bool silicon_fault_is(const char *key, const char *wanted) {
  char value[TEXT * 2];
  for (unsigned number = 0; silicon_fault(key, number, value, sizeof value); number++)
    if (!strcmp(value, wanted)) return true;
  return false;
}

/* Read the version of the loaded kernel module; false where none is loaded. */
static inline bool silicon_loaded(char *version, size_t size) {
  char full[4096];
  bool played = !access(silicon_path(full, sizeof full, "/run/lab-silicon/sys"), F_OK);
  FILE *file = silicon_open(played ? "/run/lab-silicon/sys/module/nvidia/version" : "/sys/module/nvidia/version");
  bool read = file && fgets(version, (int)size, file);
  if (file) fclose(file);
  if (read) version[strcspn(version, "\n")] = '\0';
  return read;
}

/* Try to open a device node as a driver's client does: 0, or the errno. */
static inline int silicon_node(const char *name) {
  char full[4096], path[TEXT];
  snprintf(path, sizeof path, "/dev/%s", name);
  int node = open(silicon_path(full, sizeof full, path), O_WRONLY | O_CLOEXEC);
  if (node < 0) return errno;
  close(node);
  return 0;
}

static inline bool silicon_sees(unsigned minor) {
  char name[TEXT];
  snprintf(name, sizeof name, "nvidia%u", minor);
  return silicon_node(name) == 0;
}

#endif
