/* Dies in a function that others went on to by jumps (gcc -O2): tail calls. With TWO_WAYS it may
   have been reached in two ways. */
volatile int sink;

__attribute__((noinline, noclone)) static int innermost(int *bad)
{
    return *bad + sink;
}

__attribute__((noinline, noclone)) static int second(int *bad)
{
    sink++;
    return innermost(bad);
}

__attribute__((noinline, noclone)) static int first(int *bad)
{
    sink += 2;
    return second(bad);
}

__attribute__((noinline, noclone)) static int begin(int *bad)
{
#ifdef TWO_WAYS
    if (sink == 7)
        return second(bad);
#endif
    return first(bad);
}

__attribute__((noinline, noclone)) static int outer(int n, int *bad)
{
    return begin(bad) + n;
}

int main(int argc, char **argv)
{
    (void)argv;
    return outer(argc, (int *)16) + 1;
}
