/* Arguments and local variables of many types; ends with a write to a null pointer. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum colour { RED, GREEN = 5, BLUE };
enum mode { READ = 1, WRITE = 2, RUN = 4 };
typedef unsigned long ulong_t;
struct point { int x; short y; };
union either { int number; float ratio; };
struct shape {
    const char *name;
    struct point corners[2];
    enum colour colour;
    unsigned flag : 3;
    int level : 5;
    union either either;
    struct shape *next;
    char tag[16];
};

volatile int sink;
static int *volatile nowhere;

__attribute__((noinline)) static int innermost(int n, const char *text, double ratio)
{
    int twice = n * 2;
    static int calls = 7;
    calls += twice;
    *nowhere = twice + (int)ratio + (text ? text[0] : 0);
    return calls;
}

static inline __attribute__((always_inline)) int inlined(int depth, const struct shape *s)
{
    int above = depth + 1;
    sink = above;
    int r = innermost(above, s->name, 2.5);
    sink = above + r;
    return above;
}

__attribute__((noinline)) static int outer(struct shape *shape, long password, bool on, char c)
{
    int numbers[4] = { 1, 2, 3, (int)password };
    enum colour colour = shape->colour;
    enum mode mode = READ | RUN;
    ulong_t big = 18446744073709551615ul;
    int64_t negative = -5 - password;
    float single = 0.25f;
    long double wide = 1.5L;
    unsigned char byte = 200;
    int (*function)(int, const char *, double) = innermost;
    struct point where = { 3, -4 };
    int *address = &numbers[1];
    sink = numbers[password & 3];
    {
        int block = on ? 11 : 12;
        sink = block;
        sink += inlined(block, shape);
        sink += block;
    }
    sink += (int)(big + (ulong_t)negative) + byte + (int)single + (int)wide + c + on;
    sink += where.x + *address + colour + mode + (function != 0);
    return sink;
}

int main(int argc, char **argv)
{
    struct shape shape = { "a \"square\"\n", { { 1, 2 }, { 3, 4 } }, GREEN, 5, -3,
                           { .number = 9 }, 0, "tagged" };
    sink = argc + (argv != 0);
    int r = outer(&shape, argc + 40, argc > 0, 'x');
    printf("%d %d\n", r, shape.level);
    return 0;
}
