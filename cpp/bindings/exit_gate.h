// SPDX-License-Identifier: Apache-2.0
// Keeps track of the threads that have left Python for native code. The interpreter waits for them
// before it exits, because exiting frees data that they use. Besides, CPython before 3.14 unwinds
// the stack of a thread that then requests the GIL, which neither our frames nor those of Rust
// support.
#pragma once

namespace simdformer::bindings::exit_gate {

// Call with the GIL: this thread leaves Python. Does not return if the interpreter is exiting.
void enter();

// Call with the GIL: the thread has returned.
void leave();

// Whether the thread must not return to Python. For all threads except the one that ends the
// interpreter.
bool closed();

// Call without the GIL, instead of returning: waits until the process ends.
[[noreturn]] void stay_out();

// Call with the GIL when the interpreter starts to exit: waits up to five seconds until all other
// threads have returned or wait in stay_out.
void close();

// For a forked child, in which the other threads do not exist.
void reset();

}  // namespace simdformer::bindings::exit_gate
