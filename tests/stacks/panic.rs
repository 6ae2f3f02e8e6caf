// A panic that aborts.
struct Till(Vec<u32>);

impl Till {
    #[inline(never)]
    fn open(&self, n: usize) -> u32 {
        self.0[n]
    }
}

fn main() {
    let till = Till(vec![1, 2, 3]);
    println!("{}", till.open(std::env::args().count() + 5));
}
