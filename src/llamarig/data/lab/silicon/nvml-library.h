/* A played libnvidia-ml.so.1: the calls that llamarig, nvidia-smi and exporters make, on the cards of the lab.
 *
 * Signatures and numbers are those of NVIDIA's nvml.h (driver 580). Built with DRIVER_VERSION and CUDA_VERSION.
 */
#ifndef NVML_LIBRARY_H
#define NVML_LIBRARY_H

#include "silicon.h"

enum {
  SUCCESS = 0,
  UNINITIALIZED = 1,
  INVALID_ARGUMENT = 2,
  NOT_SUPPORTED = 3,
  NO_PERMISSION = 4,
  NOT_FOUND = 6,
  INSUFFICIENT_SIZE = 7,
  DRIVER_NOT_LOADED = 9,
  TIMEOUT = 10,
  GPU_IS_LOST = 15,
  LIB_RM_VERSION_MISMATCH = 18,
  UNKNOWN = 999
};

typedef unsigned long long u64;
typedef struct card *Device;

extern struct card cards[CARDS_MAX];
extern unsigned card_count;

/* What a call returns before it does anything: a planned fault, or that nobody initialized, or a lost card. */
int planned_fault(const char *function);
int enter(const char *function);
int enter_card(const char *function, const struct card *card);

#define ENTER() \
  do { \
    int code_ = enter(__func__); \
    if (code_) return code_; \
  } while (0)
#define ENTER_CARD(card) \
  do { \
    int code_ = enter_card(__func__, card); \
    if (code_) return code_; \
  } while (0)

/* What was set on a card, kept until a reboot; whoever may not write there is refused as a user without root is. */
bool state_read(const struct card *card, const char *key, unsigned *first, unsigned *second);
int state_write(const struct card *card, const char *key, unsigned first, unsigned second);
int state_remove(const struct card *card, const char *key);

int give_text(char *buffer, unsigned length, const char *text);
bool read_word(const char *path, char *word, size_t size);

/* Ask the played kernel which process has which card; false where there is none to ask, as in a test of the library. */
bool kernel_tells(void);
/* Return the number-th process that it told of a card, and its memory. */
bool kernel_holder(unsigned number, unsigned minor, unsigned *pid, u64 *bytes);

/* Tell whether a server computes on the card. */
bool busy(const struct card *card);

#endif
