// Adds up a basket that has nothing in its only place.
#include "basket.h"
#include <cstdio>

static __attribute__((noinline)) int sell(const shop::Basket &basket)
{
    return basket.sum() + 1;
}

int main()
{
    const shop::Item *const items[] = { nullptr };
    std::printf("%d\n", sell({ items, 1 }));
}
