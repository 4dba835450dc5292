package freeport

import (
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"
)

// A port is nobody else's while its server is stopped, and is vacant for that server.
func TestReservation(t *testing.T) {
	var r Reservation
	defer r.Free()
	port, err := r.Port()
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("unix", "@drawbridge-port-"+strconv.Itoa(port))
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("another reservation of port %d: %v, %v", port, taken, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	if err := Vacant(port); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("port %d with its server: %v", port, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Vacant(port); err != nil {
		t.Errorf("port %d without its server: %v", port, err)
	}
	r.Free()
	if err := Vacant(port); err != nil {
		t.Error(err)
	}
	again, err := net.Listen("unix", "@drawbridge-port-"+strconv.Itoa(port))
	if err != nil {
		t.Fatalf("port %d was not given back: %v", port, err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
