// Arguments and local variables of the types of C++; ends with a write to a null pointer.
#include <cstdio>
#include <string>
#include <vector>

namespace shop {
enum class Kind : unsigned char { Fruit = 1, Root };

struct Base {
    int id = 4;
};

struct Item : Base {
    std::string name;
    Kind kind = Kind::Root;
    double price = 1.25;
};

static int *volatile nowhere;
volatile int sink;

struct Till {
    int coins;
    std::string password;

    __attribute__((noinline)) int open(const Item &item, int &count, std::vector<int> numbers)
    {
        bool full = coins > 3;
        std::string label = "label of " + item.name;
        int total = count;
        for (int n : numbers)
            total += n;
        *nowhere = total + full;
        return static_cast<int>(label.size()) + total;
    }
};
}

template <typename T> __attribute__((noinline)) T sell(shop::Till *till, T amount)
{
    shop::Item item;
    item.name = "a turnip";
    int count = static_cast<int>(amount);
    T result = static_cast<T>(till->open(item, count, { 10, 20, 30 }));
    shop::sink = count;
    return result + amount;
}

int main(int argc, char **)
{
    shop::Till till{ argc + 1, "not to be seen" };
    std::printf("%f\n", sell(&till, argc + 0.5));
}
