"""HTTP as this project serves it: one way to listen, guards before every application, answers in one form."""
