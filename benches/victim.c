// A process to crash: `victim KIND MIB`. It makes its memory, says "ready", waits for a byte on
// stdin, prints the monotonic time in nanoseconds, and aborts.
//   random     MIB of random bytes: nothing in it can be left out
//   text       MIB of words, every fourth page zeros that were written
//   scattered  MIB mapped, every sixteenth page touched
//   maps       MIB counts mappings of one page each
//   threads    MIB counts threads, nothing else
//   tiny       nothing
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint64_t state = 88172645463325252ull;
static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static void *wait_for_ever(void *unused) {
    for (;;) pause();
    return unused;
}

static char *map(size_t bytes) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *p = mmap(0, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

static void fill(char *page, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = next();
        memcpy(page + i, &word, 8);
    }
}

int main(int argc, char **argv) {
    static const char *words[] = {"the ", "core ", "of ", "a ", "container ", "lands ", "where ",
                                  "it ", "asked ", "and ", "stays "};
    const char *kind = argc > 1 ? argv[1] : "tiny";
    size_t n = argc > 2 ? strtoul(argv[2], 0, 0) : 0, bytes = n << 20;
    if (!strcmp(kind, "random")) {
        fill(map(bytes), bytes);
    } else if (!strcmp(kind, "text")) {
        char *p = map(bytes);
        for (size_t page = 0; page < bytes; page += 4096) {
            if (page / 4096 % 4 == 3) {
                memset(p + page, 0, 4096);
                continue;
            }
            for (size_t i = 0; i < 4096;) {
                const char *word = words[next() % 11];
                size_t left = 4096 - i, size = strlen(word);
                memcpy(p + page + i, word, size < left ? size : left);
                i += size;
            }
        }
    } else if (!strcmp(kind, "scattered")) {
        char *p = map(bytes);
        madvise(p, bytes, MADV_NOHUGEPAGE);
        for (size_t page = 0; page < bytes; page += 16 * 4096) fill(p + page, 4096);
    } else if (!strcmp(kind, "maps")) {
        // Every second page of a range gets another protection, so that no two mappings are joined.
        char *p = map(n * 4096);
        fill(p, n * 4096);
        for (size_t i = 0; i < n; i += 2) mprotect(p + i * 4096, 4096, PROT_READ);
    } else if (!strcmp(kind, "threads")) {
        pthread_attr_t attr;
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, 16384);
        for (size_t i = 0; i < n; i++) {
            pthread_t thread;
            if (pthread_create(&thread, &attr, wait_for_ever, 0))
                return perror("pthread_create"), 1;
        }
    }
    char go;
    if (write(1, "ready\n", 6) != 6 || read(0, &go, 1) != 1) return 1;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    dprintf(1, "%lld\n", now.tv_sec * 1000000000ll + now.tv_nsec);
    abort();
}
