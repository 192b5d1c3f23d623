"""Models x targets x runtimes x cases as a list of jobs that can be interrupted at any moment and taken up again."""
