// A null pointer read in an inlined function; a second source file has the caller.
#include "basket.h"

namespace shop {
static inline __attribute__((always_inline)) int price(const Item *item)
{
    int cents = item->price;
    __asm__ volatile("" : "+r"(cents));
    return cents;
}

__attribute__((noinline)) int Basket::sum() const
{
    int all = 0;
    for (const Item *const *i = items; i != items + count; i++)
        all += price(*i);
    return all;
}
}
