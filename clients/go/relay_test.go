package flowkeep_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// relay is a way to the server that a test can cut.
type relay struct {
	target string
	far    string
	near   net.Listener

	mutex sync.Mutex
	ways  map[net.Conn]struct{}
}

// relayTo returns a relay to a server, at an address; 127.0.0.1:0 for any.
func relayTo(t *testing.T, target, address string) *relay {
	t.Helper()
	near, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{target: near.Addr().String(), far: target, near: near, ways: map[net.Conn]struct{}{}}
	go r.serve()
	t.Cleanup(r.close)
	return r
}

func (r *relay) serve() {
	for {
		near, err := r.near.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", r.far)
		if err != nil {
			near.Close()
			continue
		}
		r.join(near, far)
		r.join(far, near)
	}
}

func (r *relay) join(from, to net.Conn) {
	r.mutex.Lock()
	r.ways[from] = struct{}{}
	r.mutex.Unlock()
	go func() {
		_, _ = io.Copy(to, from)
		from.Close()
		to.Close()
		r.mutex.Lock()
		delete(r.ways, from)
		r.mutex.Unlock()
	}()
}

// cut breaks all connections, as a power cut between the two would; new ones are taken.
func (r *relay) cut() {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for way := range r.ways {
		_ = way.(*net.TCPConn).SetLinger(0)
		way.Close()
	}
}

// close ends it: nothing listens there any more.
func (r *relay) close() {
	r.near.Close()
	r.cut()
}
