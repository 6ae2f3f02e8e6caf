/* Dies with a file of text mapped as data: as it is, changed, and from its middle. A second
   argument is for /proc/self/coredump_filter. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

__attribute__((noinline)) static int die(char *changed, char *read_only)
{
    changed[0] = read_only[0];
    return *(volatile int *)0x10;
}

int main(int argc, char **argv)
{
    int text = open(argv[1], O_RDONLY);
    int filter = open("/proc/self/coredump_filter", O_WRONLY);
    if (argc > 2 && write(filter, argv[2], strlen(argv[2])) < 0)
        return 1;
    size_t size = 64 << 10;
    char *read_only = mmap(0, size, PROT_READ, MAP_PRIVATE, text, 0);
    char *changed = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, text, 0);
    char *middle = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, text, 8192);
    for (size_t at = 0; at < size; at += 4096)
        changed[at] = 1;
    middle[0] = 1;
    return die(changed, read_only);
}
