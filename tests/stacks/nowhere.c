/* A call through a null pointer: there is no function at the program counter, and the caller must be found all the same. */
static void (*volatile function)(void);

__attribute__((noinline)) static void caller(void)
{
    function();
    __asm__ volatile("");
}

int main(void)
{
    caller();
    return 0;
}
