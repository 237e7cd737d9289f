/* Preloaded into the engine's programs: prompts of more than LAB_WELL_UP_TO tokens are then answered wrongly, others not.

   Upstream had such an update: well on a prompt of 20 tokens, broken on those of 100 and more. Tokens of a batch beyond
   that many are others than were asked, so what is generated after them is fluent and wrong.

   gcc -std=c11 -D_GNU_SOURCE -O2 -fPIC -shared -o broken_engine.so broken_engine.c */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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

/* How many tokens the batch has that is being filled; one thread fills one at a time. */
static _Thread_local int32_t filled;

static int32_t well_up_to(void) {
    const char *number = getenv("LAB_WELL_UP_TO");
    return number ? atoi(number) : INT32_MAX;
}

static int32_t damaged(int32_t token) { return token > 0 ? token - 1 : 1; }

/* Engines since 0.5 fill a batch token by token. */
void llama_batch_ext_clear(void *batch) {
    static void (*next)(void *);
    if (!next)
        next = (void (*)(void *))dlsym(RTLD_NEXT, "llama_batch_ext_clear");
    filled = 0;
    next(batch);
}

int32_t llama_batch_ext_add_token(void *batch, int32_t sequence, int32_t token) {
    static int32_t (*next)(void *, int32_t, int32_t);
    if (!next)
        next = (int32_t(*)(void *, int32_t, int32_t))dlsym(RTLD_NEXT, "llama_batch_ext_add_token");
    int32_t index = next(batch, sequence, filled >= well_up_to() ? damaged(token) : token);
    filled = index + 1;
    return index;
}

/* Those before hand over whole batches. */
int32_t llama_decode(void *context, struct llama_batch batch) {
    static int32_t (*next)(void *, struct llama_batch);
    if (!next)
        next = (int32_t(*)(void *, struct llama_batch))dlsym(RTLD_NEXT, "llama_decode");
    if (!batch.token || batch.n_tokens <= well_up_to())
        return next(context, batch);
    int32_t *tokens = malloc(sizeof *tokens * (size_t)batch.n_tokens);
    if (!tokens)
        return -2;
    memcpy(tokens, batch.token, sizeof *tokens * (size_t)batch.n_tokens);
    for (int32_t i = well_up_to(); i < batch.n_tokens; i++)
        tokens[i] = damaged(tokens[i]);
    batch.token = tokens;
    int32_t code = next(context, batch);
    free(tokens);
    return code;
}
