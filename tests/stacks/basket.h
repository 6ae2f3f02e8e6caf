namespace shop {
struct Item { const char *name; int price; };
struct Basket {
    const Item *const *items;
    int count;
    int sum() const;
};
}
