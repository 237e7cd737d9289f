/* Preloaded into ggml-rpc-server: its one device, the CPU, then has as much memory as a card would have.

   ggml asks sysconf for the number of pages of the machine, and says that all of them are free. With
   LAB_DEVICE_MEMORY_MIB it hears another number. With LAB_DEVICE_MEMORY_ENFORCED=1 buffers count: what they take is
   no longer free, and one that does not fit is refused, as a card refuses it. ggml gets its buffers from
   posix_memalign; what is smaller than a buffer ever is belongs to the program itself.

   gcc -std=c11 -D_GNU_SOURCE -O2 -fPIC -shared -o device_memory.so device_memory.c */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define SMALLEST_BUFFER ((size_t)64 * 1024)

struct buffer {
    void *address;
    size_t size;
    struct buffer *next;
};

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct buffer *buffers;
static size_t used;

static size_t limit(void) {
    const char *mib = getenv("LAB_DEVICE_MEMORY_MIB");
    return mib ? strtoull(mib, NULL, 10) << 20 : 0;
}

static int enforced(void) {
    const char *value = getenv("LAB_DEVICE_MEMORY_ENFORCED");
    return value && *value == '1';
}

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

long sysconf(int name) {
    static long (*next)(int);
    if (!next)
        next = (long (*)(int))real("sysconf");
    if (name != _SC_PHYS_PAGES || !limit())
        return next(name);
    pthread_mutex_lock(&guard);
    size_t free_bytes = enforced() && used < limit() ? limit() - used : enforced() ? 0 : limit();
    pthread_mutex_unlock(&guard);
    return (long)(free_bytes / (size_t)next(_SC_PAGESIZE));
}

int posix_memalign(void **address, size_t alignment, size_t size) {
    static int (*next)(void **, size_t, size_t);
    if (!next)
        next = (int (*)(void **, size_t, size_t))real("posix_memalign");
    if (!limit() || !enforced() || size < SMALLEST_BUFFER)
        return next(address, alignment, size);
    struct buffer *entry = malloc(sizeof *entry);
    if (!entry)
        return ENOMEM;
    pthread_mutex_lock(&guard);
    int result = used + size > limit() ? ENOMEM : next(address, alignment, size);
    if (result == 0) {
        *entry = (struct buffer){*address, size, buffers};
        buffers = entry;
        used += size;
        entry = NULL;
    }
    pthread_mutex_unlock(&guard);
    free(entry);
    return result;
}

void free(void *address) {
    static void (*next)(void *);
    if (!next)
        next = (void (*)(void *))real("free");
    struct buffer *found = NULL;
    if (address && buffers) {
        pthread_mutex_lock(&guard);
        for (struct buffer **link = &buffers; *link; link = &(*link)->next) {
            if ((*link)->address == address) {
                found = *link;
                *link = found->next;
                used -= found->size;
                break;
            }
        }
        pthread_mutex_unlock(&guard);
    }
    next(found);
    next(address);
}
