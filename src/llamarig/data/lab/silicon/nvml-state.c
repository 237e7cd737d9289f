/* What was set on a card: files in /run/lab-silicon/state/UUID, lost at a reboot. */
#include "nvml-library.h"

#include <sys/stat.h>

static void state_path(char *path, size_t size, const struct card *card, const char *key) {
  char below[TEXT * 3];
  snprintf(below, sizeof below, "/run/lab-silicon/state/%s%s%s", card->uuid, key[0] ? "/" : "", key);
  silicon_path(path, size, below);
}

bool state_read(const struct card *card, const char *key, unsigned *first, unsigned *second) {
  char path[4096];
  state_path(path, sizeof path, card, key);
  FILE *file = fopen(path, "re");
  if (!file) return false;
  unsigned ignored;
  int wanted = second ? 2 : 1;
  bool found = fscanf(file, "%u %u", first, second ? second : &ignored) >= wanted;
  fclose(file);
  return found;
}

int state_write(const struct card *card, const char *key, unsigned first, unsigned second) {
  static const char *const above[] = {"/run", "/run/lab-silicon", "/run/lab-silicon/state"};
  char path[4096], temporary[4200];
  for (size_t i = 0; i < sizeof above / sizeof *above; i++) mkdir(silicon_path(path, sizeof path, above[i]), 0755);
  state_path(path, sizeof path, card, "");
  mkdir(path, 0755);
  state_path(path, sizeof path, card, key);
  snprintf(temporary, sizeof temporary, "%s.new", path);
  FILE *file = fopen(temporary, "we");
  if (!file) return NO_PERMISSION;
  fprintf(file, "%u %u\n", first, second);
  fclose(file);
  return rename(temporary, path) ? NO_PERMISSION : SUCCESS;
}

int state_remove(const struct card *card, const char *key) {
  char path[4096];
  state_path(path, sizeof path, card, key);
  return unlink(path) && errno != ENOENT ? NO_PERMISSION : SUCCESS;
}
