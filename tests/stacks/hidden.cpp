// Text of several widths, and unions in which it has the bytes of a number.
union Both {
    struct {
        char password[8];
    } in;
    long long raw;
};

union Words {
    struct {
        char16_t text[4];
    } in;
    long long raw;
};

static int crash(volatile int *p)
{
    wchar_t wide[] = L"wide";
    char32_t wider[] = U"wider";
    unsigned char bytes[] = {1, 2, 3};
    short numbers[] = {4, 5, 6};
    Both both = {{"turnip"}};
    Words words = {{{'t', 'u', 'r', 'n'}}};
    return *p + wide[0] + wider[0] + bytes[0] + numbers[0] + both.raw + words.raw;
}

int main(int argc, char **) { return crash(argc > 99 ? &argc : nullptr); }
