// Functions whose names are those of types where they are part of a mangled name.
static int d(volatile int *p) { return *p; }
static int Sa(volatile int *p) { return d(p) + 1; }
extern "C" int v(volatile int *p) { return Sa(p) + 1; }

int main(int argc, char **) { return v(argc > 99 ? &argc : nullptr); }
