// SPDX-License-Identifier: Apache-2.0
// Which threads have left Python for native code. The interpreter does not end under them: its end
// frees what they use, and CPython before 3.14 unwinds the stack of a thread that asks for the GIL
// then, which neither our frames nor those of Rust allow.
#pragma once

namespace simdformer::bindings::exit_gate {

// With the GIL: this thread leaves Python. Once the interpreter exits, it does not return.
void enter();

// With the GIL: it has returned.
void leave();

// Whether it must not come back. Any thread but the one that ends the interpreter.
bool closed();

// Without the GIL, instead of returning: wait until the process ends.
[[noreturn]] void stay_out();

// With the GIL, as the interpreter begins to end: waits, up to five seconds, until all others are
// back or stay out.
void close();

// In a forked child the other threads do not exist.
void reset();

}  // namespace simdformer::bindings::exit_gate
