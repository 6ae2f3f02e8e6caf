// Arguments and local variables of Rust's types; ends with an abort.
use std::hint::black_box;

#[derive(Debug)]
enum Order {
    Empty,
    Named(String),
    Sized { wide: u32, high: i8 },
}

#[derive(Clone, Copy, Debug)]
#[allow(dead_code)]
enum Colour {
    Red,
    Green,
}

#[derive(Debug)]
struct Pair(i32, u8);

#[derive(Debug)]
struct Item {
    count: usize,
    label: &'static str,
    token: u64,
}

#[inline(never)]
fn innermost(text: &str, maybe: Option<i32>, numbers: &[u16], item: &Item) -> u64 {
    let ratio = 0.5f64;
    let letter = 'ß';
    let yes = true;
    black_box((&ratio, &letter, &yes));
    if black_box(text.len()) > 0 {
        std::process::abort();
    }
    black_box((maybe, numbers));
    item.token + ratio as u64
}

#[inline(never)]
fn outer(order: Order, colour: Colour, pair: Pair) -> u64 {
    let owned = String::from("owned text");
    let list = vec![1u16, 2, 3];
    let boxed = Box::new(7i64);
    let unit = ();
    let array = [5i32, -6];
    let none: Option<i32> = None;
    let other = Order::Sized { wide: 9, high: -1 };
    let empty = Order::Empty;
    let item = Item { count: 3, label: "pears", token: 99 };
    let total = innermost(&owned, Some(-12), &list, &item);
    black_box((&order, &colour, &pair, &boxed, &unit, &array, &none, &other, &empty, &item));
    total + *boxed as u64
}

fn main() {
    let order = Order::Named("for a friend".to_owned());
    println!("{}", outer(order, Colour::Green, Pair(-1, 2)));
}
