//! Stops a thread that runs a vCPU: one signal, one timer, no retry.
