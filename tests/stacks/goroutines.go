// Goroutines that wait for several things, then a nil dereference. GOTRACEBACK=crash makes the
// runtime print them all, and dump core.
package main

import (
	"os"
	"runtime"
	"sync"
	"time"
)

//go:noinline
func receive(c chan int) { <-c }

//go:noinline
func rest() { time.Sleep(time.Hour) }

func main() {
	c := make(chan int)
	for i := 0; i < 3; i++ {
		go receive(c)
	}
	go rest()
	go func() { select {} }()
	var m sync.Mutex
	m.Lock()
	go func() { m.Lock() }()
	for i := 0; i < 100; i++ {
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
	var p *int
	*p = len(os.Args)
}
