/*
 * A program that has no name any more when it crashes:
 *   replaced upgrade    another file has taken its name, as a rolling upgrade does
 *   replaced memfd      it was never a file with a name
 *   replaced library    its library is removed
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void must(int true)
{
	if (!true)
		exit(3);
}

/* Copies the file. */
static void copy(int to)
{
	static char buffer[1 << 16];
	int from = open("/proc/self/exe", O_RDONLY);
	ssize_t count;
	while ((count = read(from, buffer, sizeof buffer)) > 0)
		must(write(to, buffer, count) == count);
}

#ifdef LIBRARY
__attribute__((noinline)) void innermost(volatile int *where)
{
	*where = 1;
}
#else
__attribute__((noinline)) static void innermost(volatile int *where)
{
	*where = 1;
}

__attribute__((noinline)) static void middle(void (*die)(volatile int *))
{
	die(NULL);
	puts("");
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	void (*die)(volatile int *) = innermost;
	if (!strcmp(how, "upgrade")) {
		int new = open("/app/new", O_WRONLY | O_CREAT, 0755);
		must(write(new, "the new version", 15) == 15);
		must(rename("/app/new", argv[0]) == 0);
	} else if (!strcmp(how, "library")) {
		void *library = dlopen("/app/library.so", RTLD_NOW);
		must(library != NULL);
		die = (void (*)(volatile int *))dlsym(library, "innermost");
		must(unlink("/app/library.so") == 0);
	} else if (!strcmp(how, "memfd")) {
		int fd = memfd_create("payload", MFD_CLOEXEC);
		char *const arguments[] = { "payload", NULL };
		copy(fd);
		fexecve(fd, arguments, environ);
		return 4;
	}
	middle(die);
	return 0;
}
#endif
