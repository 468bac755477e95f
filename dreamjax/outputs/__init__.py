"""What a finished run leaves behind: mesh, turntable, contact sheet."""
