/* A null pointer written to, three calls deep; with arguments in a process of several threads. */
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

static int *volatile nowhere;
static sem_t ready;

__attribute__((noinline)) static void innermost(int n) { *nowhere = n; }

__attribute__((noinline)) static void middle(int n)
{
    innermost(n + 1);
    __asm__ volatile("");
}

static void *idle(void *arg)
{
    sem_post(&ready);
    for (;;)
        pause();
    return arg;
}

int main(int argc, char **argv)
{
    (void)argv;
    for (int i = 1; i < argc; i++) {
        pthread_t thread;
        pthread_create(&thread, 0, idle, 0);
        sem_wait(&ready);
    }
    middle(argc);
    return 0;
}
