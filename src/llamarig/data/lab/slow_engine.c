/* Preloaded into the engine's programs: every batch then takes LAB_SLOWER_PERCENT percent longer, as after a bad build.

   What the engine computes stays what it is. The time of a batch counts until its results are there, so that devices
   that compute by themselves are slowed as well. llama_process is what engines since 0.5 decode with, llama_decode
   what those before did.

   gcc -std=c11 -D_GNU_SOURCE -O2 -fPIC -shared -o slow_engine.so slow_engine.c */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* As in llama.h. */
struct llama_batch {
    int32_t n_tokens;
    int32_t *token;
    float *embd;
    int32_t *pos;
    int32_t *n_seq_id;
    int32_t **seq_id;
    int8_t *logits;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void linger(void *context, double start) {
    void (*synchronize)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "llama_synchronize");
    const char *percent = getenv("LAB_SLOWER_PERCENT");
    if (synchronize)
        synchronize(context);
    double seconds = (now() - start) * (percent ? atof(percent) : 0) / 100;
    struct timespec rest = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&rest, NULL);
}

int32_t llama_process(void *context, int type, void *batch) {
    static int32_t (*next)(void *, int, void *);
    if (!next)
        next = (int32_t(*)(void *, int, void *))dlsym(RTLD_NEXT, "llama_process");
    double start = now();
    int32_t code = next(context, type, batch);
    linger(context, start);
    return code;
}

int32_t llama_decode(void *context, struct llama_batch batch) {
    static int32_t (*next)(void *, struct llama_batch);
    if (!next)
        next = (int32_t(*)(void *, struct llama_batch))dlsym(RTLD_NEXT, "llama_decode");
    double start = now();
    int32_t code = next(context, batch);
    linger(context, start);
    return code;
}
