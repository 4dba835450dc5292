// An assembly file lets the compiler accept the functions without a body in main.go.
