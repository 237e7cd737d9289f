/* What the played kernel tells everybody: which process has which card. /proc shows that of others to root alone. */
#include "nvml-library.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#define PLACE "/run/lab-silicon/processes.sock"
#define MOST 64
/* One reading asks many things of every card; the kernel is asked once for all of them. */
#define KEPT_MS 500

struct holder {
  unsigned pid, minor;
  u64 kib;
};
static struct holder holders[MOST];
static unsigned holder_count;
static bool told;
static u64 told_ms;

static FILE *reach_kernel(void) {
  struct sockaddr_un place = {.sun_family = AF_UNIX};
  struct timeval limit = {.tv_sec = 5};
  char path[4096];
  silicon_path(path, sizeof path, PLACE);
  if (strlen(path) >= sizeof place.sun_path) return NULL;
  strcpy(place.sun_path, path);
  int end = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (end < 0) return NULL;
  setsockopt(end, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (!connect(end, (struct sockaddr *)&place, sizeof place)) return fdopen(end, "r");
  close(end);
  return NULL;
}

/* Its answer is a line for each holder, and a last one that says that it is whole. */
static bool ask_kernel(void) {
  FILE *answer = reach_kernel();
  char line[128];
  bool whole = false;
  holder_count = 0;
  while (answer && !whole && fgets(line, sizeof line, answer)) {
    struct holder found;
    if (sscanf(line, "%u %u %llu", &found.pid, &found.minor, &found.kib) == 3) {
      if (holder_count < MOST) holders[holder_count++] = found;
    } else {
      whole = !strcmp(line, "end\n");
    }
  }
  if (answer) fclose(answer);
  return whole;
}

bool kernel_tells(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  u64 now_ms = (u64)now.tv_sec * 1000 + (u64)now.tv_nsec / 1000000;
  if (!told_ms || now_ms - told_ms > KEPT_MS) {
    told = ask_kernel();
    told_ms = now_ms;
  }
  return told;
}

bool kernel_holder(unsigned number, unsigned minor, unsigned *pid, u64 *bytes) {
  for (unsigned i = 0; i < holder_count; i++) {
    if (holders[i].minor != minor || number--) continue;
    *pid = holders[i].pid;
    *bytes = holders[i].kib * 1024;
    return true;
  }
  return false;
}
