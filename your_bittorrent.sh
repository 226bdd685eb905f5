#!/bin/sh
# The name that older CodeCrafters repositories call.
case $0 in
*/*) exec "${0%/*}/your_program.sh" "$@" ;;
*) exec ./your_program.sh "$@" ;;
esac
