/*
 * Somebody else's core handler, as it may stand in core_pattern: `|handler DIRECTORY ARGUMENT...`.
 * In DIRECTORY it writes
 *   argv   its arguments, each ended by a NUL
 *   fd3    what descriptor 3 is: /proc/self/fdinfo/3, or nothing when there is none
 *   ids    its own "UID GID\n" and, by its cwd, where it was started
 *   core   its standard input, last and under this name only when it is complete
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void fill(int target, int source)
{
	static char buffer[1 << 16];
	ssize_t count;
	while ((count = read(source, buffer, sizeof buffer)) > 0)
		if (write(target, buffer, count) != count)
			exit(1);
}

static int create(const char *name)
{
	int file = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (file < 0)
		exit(2);
	return file;
}

int main(int argc, char **argv)
{
	char cwd[4096] = "";
	/* The first new descriptor may be 1, 2 or 3: look at 3 before anything is opened. */
	int three = fcntl(3, F_GETFD) >= 0;

	if (argc < 2 || !getcwd(cwd, sizeof cwd) || chdir(argv[1]) != 0)
		return 3;
	int out = create("argv");
	for (int i = 0; i < argc; i++)
		if (write(out, argv[i], strlen(argv[i]) + 1) < 0)
			return 4;
	out = create("fd3");
	if (three)
		fill(out, open("/proc/self/fdinfo/3", O_RDONLY));
	dprintf(create("ids"), "%d %d %s\n", getuid(), getgid(), cwd);
	fill(create("core.part"), 0);
	return rename("core.part", "core") != 0;
}
