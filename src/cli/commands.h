/* The commands of `hemi`. Each takes its own name as argv[0] and returns the program's exit code. */
#ifndef HEMI_CLI_COMMANDS_H
#define HEMI_CLI_COMMANDS_H

int cmd_compile(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_keys(int argc, char **argv);
int cmd_tenants(int argc, char **argv);
int cmd_audit(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_call(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_version(int argc, char **argv);

int bench_linear(int argc, char **argv);
int bench_prepared(int argc, char **argv);
int bench_rows(int argc, char **argv);
int bench_conv2d(int argc, char **argv);
int bench_circuit(int argc, char **argv);
int bench_model(int argc, char **argv);
int bench_serve(int argc, char **argv);
int bench_ckks(int argc, char **argv);

#endif
