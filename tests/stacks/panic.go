// A nil dereference; GOTRACEBACK=crash makes the runtime dump core.
package main

type till struct{ coins int }

//go:noinline
func (t *till) open() int { return t.coins }

//go:noinline
func sell(t *till) int { return t.open() + 1 }

func main() {
	var t *till
	println(sell(t))
}
