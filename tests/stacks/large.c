/* Dies with 64 MiB on its heap and three threads that wait. With an argument it dies in a signal
   handler that has a stack of its own. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct node {
    int value;
    char name[40];
};

int number = 77;
static volatile int ready;

static void *sleeper(void *argument)
{
    __sync_fetch_and_add(&ready, 1);
    for (;;)
        pause();
    return argument;
}

__attribute__((noinline)) static int innermost(struct node *node, int *bad)
{
    return node->value + *bad;
}

__attribute__((noinline)) static int middle(struct node *node)
{
    char local[64];
    snprintf(local, sizeof local, "local %d", node->value);
    return innermost(node, (int *)0x10) + local[0];
}

static void handler(int number)
{
    struct node node = { number, "on the handler's stack" };
    exit(middle(&node));
}

int main(int argc, char **argv)
{
    size_t size = 64ul << 20;
    char *heap = malloc(size);
    for (size_t i = 0; i < size; i += sizeof(int))
        *(int *)(heap + i) = rand();
    strcpy(heap + size / 2, "a secret of");
    strcpy(heap + size / 2 + 11, " the heap");
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        pthread_create(&thread, 0, sleeper, 0);
    }
    while (ready < 3)
        usleep(1000);
    struct node *node = malloc(sizeof *node);
    node->value = 41;
    strcpy(node->name, "a node on the heap");
    if (argc > 1) {
        stack_t stack = { .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 };
        struct sigaction action = { .sa_handler = handler, .sa_flags = SA_ONSTACK };
        sigaltstack(&stack, 0);
        sigaction(SIGUSR1, &action, 0);
        raise(SIGUSR1);
    }
    return middle(node);
}
