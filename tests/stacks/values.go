// Arguments and local variables of Go's types; GOTRACEBACK=crash makes the runtime dump core.
package main

import "os"

type item struct {
	count int
	label string
	token uint32
}

var sink int

//go:noinline
func innermost(p *int, text string, numbers []int, one item) int {
	twice := len(text) * 2
	yes := twice > 3
	ratio := 0.5
	if yes {
		sink = twice
	}
	*p = twice + len(numbers) + one.count
	sink += int(ratio)
	return twice
}

//go:noinline
func outer(n int, names []string) int {
	array := [3]int8{1, -2, 3}
	one := item{n, "pears", 99}
	r := innermost(nil, "a text", []int{4, 5, n}, one)
	sink = int(array[n&1]) + len(names)
	return r
}

func main() {
	println(outer(len(os.Args)+6, []string{"a", "b"}))
}
