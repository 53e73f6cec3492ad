#!/bin/sh
echo "1 warning" >&2
exit 4
