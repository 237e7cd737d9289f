"""The doctor: one function per check, the same on the box, in the playbook and in the API."""
