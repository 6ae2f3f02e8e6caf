/*
 * An earlier handler, `|gate DIRECTORY`: it takes the whole core, says so by a byte in
 * DIRECTORY/started, and ends when the FIFO DIRECTORY/gate has a writer.
 */
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static char buffer[1 << 16];
	if (argc < 2 || chdir(argv[1]) != 0)
		return 1;
	while (read(0, buffer, sizeof buffer) > 0)
		;
	int started = open("started", O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (started < 0 || write(started, "x", 1) != 1)
		return 2;
	return open("gate", O_RDONLY) < 0;
}
