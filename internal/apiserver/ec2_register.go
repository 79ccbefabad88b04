package apiserver

// ec2Operations lists the EC2 operations that this server answers, each with its handler:
//
//	ec2Op("DescribeVpcs", s.describeVpcs),
//
// An operation of the model that is not listed is refused as not implemented.
func (s *Server) ec2Operations() []operation {
	return []operation{}
}
