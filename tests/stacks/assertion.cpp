// abort by assert, in a method of a template.
#include <cassert>

template <typename T> struct Box {
    T value;
    __attribute__((noinline)) void check(T limit)
    {
        assert(value < limit);
    }
};

namespace shop {
__attribute__((noinline)) void sell(Box<int> &box) { box.check(1); }
}

int main(int argc, char **)
{
    Box<int> box{argc + 1};
    shop::sell(box);
    return 0;
}
