/* A call through a null pointer: no function is at the program counter, but it has a caller. */
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
