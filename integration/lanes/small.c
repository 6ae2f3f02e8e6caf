/* Waits for a byte and dies of SIGSEGV; started by `template exec`. */
#include <unistd.h>

int main(void)
{
	char go;
	if (read(0, &go, 1) == 1)
		*(volatile int *)0 = 1;
	return 1;
}
