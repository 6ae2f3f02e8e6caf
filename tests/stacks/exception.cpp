// An exception that nobody catches.
#include <stdexcept>

namespace shop {
struct Till {
    __attribute__((noinline)) int open(int n)
    {
        if (n > 0)
            throw std::runtime_error("empty");
        return n;
    }
};
}

int main(int argc, char **)
{
    shop::Till till;
    return till.open(argc);
}
