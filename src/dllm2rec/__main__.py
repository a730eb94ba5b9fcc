"""`python -m dllm2rec`: the command line where the script is not on the path."""

from dllm2rec.cli.main import main

if __name__ == "__main__":
    main()
