from clusterai.cli.main import main

main()
